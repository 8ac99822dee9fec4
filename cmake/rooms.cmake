# stasis_room(NAME SOURCES ... [LINK ...]): one static library `stasis_NAME` per room. Its own headers and those of the
# rooms it links are all that it can include: headers are published as <build>/rooms/NAME/include/NAME -> src/NAME, and a
# room's include path holds only itself and what it links.
function(stasis_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;LINK" ${ARGN})
  set(include_dir ${CMAKE_BINARY_DIR}/rooms/${name}/include)
  file(MAKE_DIRECTORY ${include_dir})
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/src/${name} ${include_dir}/${name} SYMBOLIC)
  add_library(stasis_${name} STATIC ${ROOM_SOURCES})
  target_include_directories(stasis_${name} PUBLIC ${include_dir})
  target_link_libraries(stasis_${name} PUBLIC ${ROOM_LINK})
endfunction()

# stasis_test(NAME SOURCES ... LINK ... [LABELS ...] [SERIAL] [OLDER_KERNEL]): one GoogleTest program, one ctest entry per
# program. SERIAL tests use the whole machine (a guest, timing of the kernel) and run alone; OLDER_KERNEL ones and all that they
# start run as on Linux 6.1 (base/testing/older_kernel.h).
function(stasis_test name)
  cmake_parse_arguments(T "SERIAL;OLDER_KERNEL" "TIMEOUT" "SOURCES;LINK;LABELS;ENVIRONMENT" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE ${T_LINK} GTest::gmock)
  if(T_OLDER_KERNEL)
    target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/src/base/testing/older_kernel_main.cc)
    target_link_libraries(${name} PRIVATE stasis_base_testing GTest::gtest)
  else()
    target_link_libraries(${name} PRIVATE GTest::gtest_main)
  endif()
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS "${T_LABELS}" ENVIRONMENT "${T_ENVIRONMENT}")
  if(T_OLDER_KERNEL)
    set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
  endif()
  if(T_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()

# stasis_fuzz(NAME SOURCE CORPUS LIBRARY MUTATIONS [KIB]): a fuzz target. In the fuzz preset it is a libFuzzer program (make
# fuzz); everywhere else a test that runs the same target on its corpus and on so many mutations of it (a few seconds). KIB: what
# it needs of the heap for any input (default 256).
function(stasis_fuzz name source corpus library mutations)
  if(STASIS_FUZZ)
    target_compile_options(${library} PRIVATE -fsanitize=fuzzer-no-link)
    add_executable(fuzz_${name} ${source})
    target_link_libraries(fuzz_${name} PRIVATE ${library} -fsanitize=fuzzer)
    if(NOT TARGET fuzz_targets)
      add_custom_target(fuzz_targets)
    endif()
    add_dependencies(fuzz_targets fuzz_${name})
  elseif(NOT STASIS_SANITIZER)  # the driver counts the heap through operator new, which a sanitizer has of its own
    add_executable(fuzz_${name} ${source} ${CMAKE_SOURCE_DIR}/src/base/testing/mutation_driver.cc)
    target_link_libraries(fuzz_${name} PRIVATE ${library})
    add_test(NAME fuzz_${name} COMMAND fuzz_${name} ${mutations} ${CMAKE_CURRENT_SOURCE_DIR}/${corpus} ${ARGN})
    set_tests_properties(fuzz_${name} PROPERTIES TIMEOUT 300 ENVIRONMENT TMPDIR=/dev/shm)
  endif()
endfunction()
