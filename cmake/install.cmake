# Installs programs, libraries, public headers and protos, and the CMake package: find_package(longembed) gives longembed::embedder
# and longembed::client. examples/ has a project for each.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/longembed)
set(header_folder ${CMAKE_INSTALL_INCLUDEDIR}/longembed)

# longembed_install_libraries(component target...): longembed_NAME is longembed::NAME in the package.
function(longembed_install_libraries component)
  foreach(target IN LISTS ARGN)
    string(REGEX REPLACE "^longembed_" "" name ${target})
    set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  endforeach()
  install(TARGETS ${ARGN} EXPORT longembed-${component} FILE_SET HEADERS DESTINATION ${header_folder})
  install(EXPORT longembed-${component} NAMESPACE longembed:: FILE longembed-${component}-targets.cmake DESTINATION ${package_folder})
endfunction()

longembed_install_libraries(common longembed_options longembed_system)
set(components)
if(LONGEMBED_TORCH)
  list(APPEND components embedder)
  longembed_install_libraries(embedder
    longembed_errors longembed_yaml longembed_manifest longembed_text longembed_plan longembed_vector longembed_encoder longembed_cpu_encoder longembed_cuda_kernels
    longembed_torch_encoder longembed_embed longembed_embedder)
  get_target_property(archive longembed::hf_tokenizers IMPORTED_LOCATION)
  install(FILES ${archive} DESTINATION ${CMAKE_INSTALL_LIBDIR})
  include(${CMAKE_CURRENT_LIST_DIR}/longembed-torch-version.cmake)
  cmake_path(GET LONGEMBED_TORCH_INCLUDE PARENT_PATH torch_root)
  longembed_torch_version(${LONGEMBED_TORCH_INCLUDE} torch_version)
  install(FILES ${CMAKE_CURRENT_LIST_DIR}/longembed-torch-version.cmake DESTINATION ${package_folder})
endif()
if(LONGEMBED_CLIENT)
  list(APPEND components client)
  longembed_install_libraries(client longembed_messages longembed_proto longembed_client)
  install(DIRECTORY ${PROJECT_BINARY_DIR}/proto/generated/ DESTINATION ${header_folder} FILES_MATCHING PATTERN "*.h")
  install(TARGETS longembed)
endif()
if(LONGEMBED_SERVER AND LONGEMBED_TORCH)
  # CMake leaves out link paths within the repository, such as that of the LibTorch in the Python environment.
  cmake_path(GET LONGEMBED_TORCH_CPU PARENT_PATH torch_libraries)
  set_property(TARGET longembed-server APPEND PROPERTY INSTALL_RPATH ${torch_libraries})
  install(TARGETS longembed-server)
  install(FILES ${PROJECT_SOURCE_DIR}/deploy/config.yaml DESTINATION ${CMAKE_INSTALL_DOCDIR})
endif()
# Links programs with the run path of the installed ones. CMake would pad a different run path of the build tree with colons. The loader takes an empty part for the current
# folder, and would load libraries from there.
foreach(program longembed longembed-server)
  if(TARGET ${program})
    set_property(TARGET ${program} PROPERTY BUILD_WITH_INSTALL_RPATH ON)
  endif()
endforeach()
if(LONGEMBED_SERVER OR LONGEMBED_CLIENT)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/proto DESTINATION ${CMAKE_INSTALL_DATADIR}/longembed FILES_MATCHING PATTERN "*.proto")
endif()

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/longembed-config.cmake.in ${PROJECT_BINARY_DIR}/longembed-config.cmake
  INSTALL_DESTINATION ${package_folder} PATH_VARS CMAKE_INSTALL_LIBDIR NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/longembed-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/longembed-config.cmake ${PROJECT_BINARY_DIR}/longembed-config-version.cmake DESTINATION ${package_folder})
