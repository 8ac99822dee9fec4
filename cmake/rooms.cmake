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

# stasis_test(NAME SOURCES ... LINK ... [LABELS ...] [SERIAL]): one GoogleTest program, one ctest entry per program.
# SERIAL tests use the whole machine (a guest, timing of the kernel) and run alone.
function(stasis_test name)
  cmake_parse_arguments(T "SERIAL" "TIMEOUT" "SOURCES;LINK;LABELS;ENVIRONMENT" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  target_link_libraries(${name} PRIVATE ${T_LINK} GTest::gmock GTest::gtest_main)
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 120)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS "${T_LABELS}" ENVIRONMENT "${T_ENVIRONMENT}")
  if(T_SERIAL)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL TRUE)
  endif()
endfunction()
