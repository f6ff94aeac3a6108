// Owner of the precompiled headers that all test programs use. SPDX-License-Identifier: MIT
