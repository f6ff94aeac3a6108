// Owner of the precompiled headers that many targets use. SPDX-License-Identifier: MIT
