# Writes a C++ file with the bytes of files in it, each as a function of its name:
#   cmake -D OUT=FILE -D INCLUDE=HEADER -D "FILES=NAME=PATH|NAME=PATH" -P embed_files.cmake
set(text "#include \"${INCLUDE}\"\n\nnamespace longembed {\n")
string(REPLACE "|" ";" FILES "${FILES}")
foreach(file IN LISTS FILES)
  string(REGEX MATCH "^([^=]+)=(.+)$" found "${file}")
  set(name ${CMAKE_MATCH_1})
  file(READ "${CMAKE_MATCH_2}" hex HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
  string(APPEND text "static constexpr unsigned char k${name}Bytes[] = {${bytes}};\n"
    "std::string_view ${name}() { return {reinterpret_cast<const char*>(k${name}Bytes), sizeof(k${name}Bytes)}; }\n")
endforeach()
file(WRITE "${OUT}" "${text}}  // namespace longembed\n")
