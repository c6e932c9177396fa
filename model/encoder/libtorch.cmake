# Defines longembed::libtorch, an imported target over the CPU half of a LibTorch. find_package(Torch) is not used: on a CUDA build it fails without a CUDA
# toolkit, which nothing here needs. Looked for in this order:
#   -DLONGEMBED_LIBTORCH=DIR or the environment's LIBTORCH   the folder with include/ and lib/
#   CMAKE_PREFIX_PATH                                        as LibTorch's own instructions say
#   build/venv                                               the Python wheel that deploy/setup.sh installs for the exporter
set(LONGEMBED_LIBTORCH "$ENV{LIBTORCH}" CACHE PATH "A LibTorch: the folder with include/ and lib/")
file(GLOB venv_torch ${PROJECT_SOURCE_DIR}/build/venv/lib/python3*/site-packages/torch)

find_path(LONGEMBED_TORCH_INCLUDE torch/script.h
  HINTS ${LONGEMBED_LIBTORCH}/include NO_DEFAULT_PATH)
find_path(LONGEMBED_TORCH_INCLUDE torch/script.h PATHS ${venv_torch}/include)
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
# -idirafter: the wheel carries headers of another protobuf, which must not be seen before the system's.
target_compile_options(longembed::libtorch INTERFACE
  "SHELL:-idirafter ${LONGEMBED_TORCH_INCLUDE}"
  "SHELL:-idirafter ${LONGEMBED_TORCH_INCLUDE}/torch/csrc/api/include")
target_link_libraries(longembed::libtorch INTERFACE ${LONGEMBED_TORCH_CPU} ${LONGEMBED_TORCH_C10})
