# cmake --install: programs, man pages and completions made by them, module files, documentation, batch
# scripts, the tiny model (docs/installing.md). Nothing that is installed knows its prefix, so it may be
# moved; the programs look for MPI, HDF5 and CUDA where the loader does. SPDX-License-Identifier: MIT
include(GNUInstallDirs)
set(installed glm_infer glm_convert glm_inspect glm_eval)
if(TARGET glm_plan)
  list(APPEND installed glm_plan)
endif()

set(texts ${CMAKE_CURRENT_BINARY_DIR}/texts)
set(stamps "")
foreach(program ${installed})
  set(stamp ${texts}/${program}.stamp)
  add_custom_command(OUTPUT ${stamp}
    COMMAND ${CMAKE_COMMAND} -DPROGRAM=$<TARGET_FILE:${program}> -DOUT=${texts}
      -P ${CMAKE_CURRENT_SOURCE_DIR}/generate_texts.cmake
    COMMAND ${CMAKE_COMMAND} -E touch ${stamp}
    DEPENDS ${program} ${CMAKE_CURRENT_SOURCE_DIR}/generate_texts.cmake VERBATIM)
  list(APPEND stamps ${stamp})
endforeach()
add_custom_target(program_texts ALL DEPENDS ${stamps})

get_directory_property(GLM_MODULE_MPI DIRECTORY ${CMAKE_SOURCE_DIR}/apps DEFINITION MPI_TEXT)
set(GLM_MODULE_FOLDER ${CMAKE_INSTALL_DATADIR}/modulefiles)
configure_file(modulefile.lua.in ${texts}/modules/${PROJECT_VERSION}.lua @ONLY)
configure_file(modulefile.tcl.in ${texts}/modules/${PROJECT_VERSION} @ONLY)

install(TARGETS ${installed} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${texts}/man1/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(DIRECTORY ${texts}/bash/ DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(DIRECTORY ${texts}/zsh/ DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(DIRECTORY ${texts}/fish/ DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(DIRECTORY ${texts}/modules/ DESTINATION ${GLM_MODULE_FOLDER}/${PROJECT_NAME})
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/docs ${CMAKE_SOURCE_DIR}/slurm DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/tests/data/tiny/ DESTINATION ${CMAKE_INSTALL_DATADIR}/${PROJECT_NAME}/models/tiny
  FILES_MATCHING PATTERN "*.json" PATTERN "*.jinja" PATTERN "*.safetensors" PATTERN "expected" EXCLUDE)

if(NOT GLM_SANITIZE)
  add_test(NAME install_test COMMAND bash ${CMAKE_SOURCE_DIR}/tests/packaging/install_test.sh
    ${CMAKE_COMMAND} ${CMAKE_BINARY_DIR} ${CMAKE_BINARY_DIR}/tmp ${MPIEXEC_EXECUTABLE})
  set_tests_properties(install_test PROPERTIES LABELS mpi TIMEOUT 300 ENVIRONMENT "${GLM_TEST_ENVIRONMENT}")
endif()
