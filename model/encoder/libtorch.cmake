# Defines longembed::libtorch, an imported target for the CPU part of a LibTorch. It does not use find_package(Torch),
# which fails for a CUDA build without a CUDA toolkit, although none is needed here. LibTorch is searched in this order:
#   -DLONGEMBED_LIBTORCH=DIR or the environment's LIBTORCH   the folder with include/ and lib/
#   CMAKE_PREFIX_PATH                                        as in LibTorch's own instructions
#   build/venv                                               the Python wheel that deploy/setup.sh installs for the exporter
set(LONGEMBED_LIBTORCH "$ENV{LIBTORCH}" CACHE PATH "A LibTorch: the folder with include/ and lib/")
file(GLOB venv_torch ${PROJECT_SOURCE_DIR}/build/venv/lib/python3*/site-packages/torch)

# A folder that is named now replaces what an earlier configure found.
if(LONGEMBED_LIBTORCH)
  foreach(part INCLUDE CPU C10)
    unset(LONGEMBED_TORCH_${part} CACHE)
  endforeach()
  find_path(LONGEMBED_TORCH_INCLUDE torch/script.h HINTS ${LONGEMBED_LIBTORCH}/include NO_DEFAULT_PATH)
  if(NOT LONGEMBED_TORCH_INCLUDE)
    message(FATAL_ERROR "LIBTORCH is ${LONGEMBED_LIBTORCH}, which has no include/torch/script.h. Set LIBTORCH, or -DLONGEMBED_LIBTORCH, to the folder of an unpacked LibTorch, or to nothing.")
  endif()
endif()
# Not in the system's folders, where Debian's libtorch-dev has an older one.
find_path(LONGEMBED_TORCH_INCLUDE torch/script.h PATHS ${venv_torch}/include NO_CMAKE_SYSTEM_PATH)
if(NOT LONGEMBED_TORCH_INCLUDE)
  message(FATAL_ERROR "LibTorch not found. Run deploy/setup.sh, which installs it, or set LIBTORCH to the folder of an unpacked LibTorch.")
endif()
cmake_path(GET LONGEMBED_TORCH_INCLUDE PARENT_PATH torch_root)
find_library(LONGEMBED_TORCH_CPU torch_cpu PATHS ${torch_root}/lib NO_DEFAULT_PATH REQUIRED)
find_library(LONGEMBED_TORCH_C10 c10 PATHS ${torch_root}/lib NO_DEFAULT_PATH REQUIRED)
option(LONGEMBED_REQUIRE_CUDA "Refuse a LibTorch without its CUDA half, which the server loads at run time when a model's device asks for it" OFF)
if(LONGEMBED_REQUIRE_CUDA AND NOT EXISTS ${torch_root}/lib/libtorch_cuda.so)
  message(FATAL_ERROR "${torch_root} has no lib/libtorch_cuda.so. Name a CUDA build of LibTorch in LIBTORCH, or use the release preset.")
endif()
message(STATUS "LibTorch: ${torch_root}")

add_library(longembed::libtorch INTERFACE IMPORTED GLOBAL)
# -idirafter: the wheel contains headers of another protobuf version, which must come after the system's.
target_compile_options(longembed::libtorch INTERFACE
  "SHELL:-idirafter ${LONGEMBED_TORCH_INCLUDE}"
  "SHELL:-idirafter ${LONGEMBED_TORCH_INCLUDE}/torch/csrc/api/include")
target_link_libraries(longembed::libtorch INTERFACE ${LONGEMBED_TORCH_CPU} ${LONGEMBED_TORCH_C10})
