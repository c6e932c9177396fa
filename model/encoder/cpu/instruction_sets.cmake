# Adds the kernels for the target processor's architecture to a target. Each kernels_*.cc is compiled for its
# instruction set and optimized in every build type; kernels.cc decides at run time which of them may be called.
function(longembed_kernel_sources target folder)
  # GCC warns about uninitialized values in its own intrinsics.
  set(options -O3 -Wno-ignored-attributes -Wno-uninitialized -Wno-maybe-uninitialized)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    set(kernels ${folder}/kernels_avx512.cc ${folder}/kernels_avx2.cc)
    set(avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16 -mfma)
    set_source_files_properties(${folder}/kernels_avx512.cc PROPERTIES COMPILE_OPTIONS "${options};${avx512}")
    set_source_files_properties(${folder}/kernels_avx2.cc PROPERTIES COMPILE_OPTIONS "${options};-mavx2;-mfma")
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    set(kernels ${folder}/kernels_neon.cc)
    set_source_files_properties(${folder}/kernels_neon.cc PROPERTIES COMPILE_OPTIONS "${options}")
  endif()
  target_sources(${target} PRIVATE ${kernels})
endfunction()
