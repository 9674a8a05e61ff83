# version.c is made anew at every build, and rewritten only when it changes, so `git describe` is that of the build.
set(MG_VERSION_C ${CMAKE_BINARY_DIR}/version.c)
add_custom_target(mg_version_file
  BYPRODUCTS ${MG_VERSION_C}
  COMMAND ${CMAKE_COMMAND} -DSOURCE=${CMAKE_SOURCE_DIR} -DOUTPUT=${MG_VERSION_C} -DVERSION=${PROJECT_VERSION}
          "-DFLAGS=${CMAKE_C_COMPILER_ID} ${CMAKE_C_COMPILER_VERSION} ${CMAKE_BUILD_TYPE}"
          -P ${CMAKE_SOURCE_DIR}/cmake/write-version.cmake)
add_library(mg_version STATIC ${MG_VERSION_C})
add_dependencies(mg_version mg_version_file)
target_link_libraries(mg_version PUBLIC mg_flags)
if(TARGET mg_result)
  target_link_libraries(mg_result PUBLIC mg_version)
endif()
