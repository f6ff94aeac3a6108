# Man page and completions of one program, as it prints them itself. Variables: PROGRAM (the built
# file), OUT (folder). SPDX-License-Identifier: MIT
get_filename_component(name ${PROGRAM} NAME)
foreach(pair "man;man1/${name}.1" "bash;bash/${name}" "zsh;zsh/_${name}" "fish;fish/${name}.fish")
  list(GET pair 0 form)
  list(GET pair 1 file)
  get_filename_component(folder ${OUT}/${file} DIRECTORY)
  file(MAKE_DIRECTORY ${folder})
  execute_process(COMMAND ${PROGRAM} --generate ${form} OUTPUT_FILE ${OUT}/${file} RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "${name} --generate ${form}: exit code ${failed}")
  endif()
endforeach()
