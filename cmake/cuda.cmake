# The CUDA backend, a module that the program loads when a device is asked for: nothing else needs CUDA's libraries.
set(MERGEGRID_CUDA AUTO CACHE STRING "The CUDA backend: ON, OFF, or AUTO (where nvcc is)")
set_property(CACHE MERGEGRID_CUDA PROPERTY STRINGS AUTO ON OFF)
set(MG_CUDA_FOUND OFF)
if(NOT MERGEGRID_CUDA STREQUAL "OFF")
  find_package(CUDAToolkit QUIET)
  find_program(MG_NVCC nvcc HINTS ${CUDAToolkit_BIN_DIR})
  if(CUDAToolkit_FOUND AND MG_NVCC AND TARGET CUDA::cublas)
    set(MG_CUDA_FOUND ON)
  elseif(MERGEGRID_CUDA STREQUAL "ON")
    message(FATAL_ERROR "MERGEGRID_CUDA is ON, but nvcc or cuBLAS was not found: load the CUDA toolkit, or set CUDAToolkit_ROOT")
  endif()
endif()
if(NOT MG_CUDA_FOUND)
  message(STATUS "CUDA backend: not built (MERGEGRID_CUDA=${MERGEGRID_CUDA})")
  return()
endif()

# Every architecture that this toolkit knows from sm_70 on, and PTX of the newest for those to come.
execute_process(COMMAND ${MG_NVCC} --list-gpu-code OUTPUT_VARIABLE codes OUTPUT_STRIP_TRAILING_WHITESPACE)
string(REGEX MATCHALL "[0-9]+" MG_CUDA_ARCHITECTURES "${codes}")
list(REMOVE_DUPLICATES MG_CUDA_ARCHITECTURES)
list(FILTER MG_CUDA_ARCHITECTURES EXCLUDE REGEX "^([1-6][0-9])$")
list(SORT MG_CUDA_ARCHITECTURES COMPARE NATURAL)
if(DEFINED MERGEGRID_CUDA_ARCHITECTURES) # a few, for a shorter build
  set(MG_CUDA_ARCHITECTURES ${MERGEGRID_CUDA_ARCHITECTURES})
endif()
set(MG_CUDA_GENCODE)
foreach(arch ${MG_CUDA_ARCHITECTURES})
  list(APPEND MG_CUDA_GENCODE "-gencode=arch=compute_${arch},code=sm_${arch}")
  set(newest ${arch})
endforeach()
list(APPEND MG_CUDA_GENCODE "-gencode=arch=compute_${newest},code=compute_${newest}")
message(STATUS "CUDA backend: ${MG_NVCC} ${CUDAToolkit_VERSION}, sm_ ${MG_CUDA_ARCHITECTURES}")

# Contraction is off here, too: what is fused says so.
file(GLOB kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/ops/cuda/*.cu)
file(GLOB host CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/ops/cuda/*.c)
file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/ops/cuda/*.h)
set(objects)
foreach(source ${kernels})
  get_filename_component(name ${source} NAME_WE)
  set(object ${CMAKE_BINARY_DIR}/cuda/${name}.o)
  add_custom_command(OUTPUT ${object}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/cuda
    COMMAND ${MG_NVCC} -std=c++17 -O3 --fmad=false --threads 2 ${MG_CUDA_GENCODE} -I${CMAKE_SOURCE_DIR}/include
            -I${CMAKE_SOURCE_DIR}/src/ops/cuda -Xcompiler=-fPIC,-Wall,-Wextra,-fvisibility=hidden -Werror=all-warnings
            -c ${source} -o ${object}
    DEPENDS ${source} ${headers} ${CMAKE_SOURCE_DIR}/include/mergegrid/device.h ${CMAKE_SOURCE_DIR}/include/mergegrid/tiling.h
    COMMENT "nvcc ${name}.cu" VERBATIM)
  list(APPEND objects ${object})
endforeach()
add_library(mg_cuda MODULE ${host} ${objects})
target_link_libraries(mg_cuda PRIVATE mg_flags CUDA::cudart CUDA::cublas)
target_include_directories(mg_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
set_target_properties(mg_cuda PROPERTIES PREFIX "" OUTPUT_NAME mergegrid-cuda C_VISIBILITY_PRESET hidden
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR} POSITION_INDEPENDENT_CODE ON LINKER_LANGUAGE CXX)
