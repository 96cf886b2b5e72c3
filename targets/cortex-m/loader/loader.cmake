# The target loader.elf for the board that was included. Sets APP_FLASH_ORIGIN, APP_FLASH_LENGTH, APP_RAM_ORIGIN and
# APP_RAM_LENGTH: what is left for the application.
set(LOADER_BYTES 16384) # as in loader.h
set(LOADER_FLAG_BYTES 8)
set(LOADER_PAGE_mps2 1024) # of no meaning there: code memory is RAM
set(LOADER_BLOCK_mps2 4096)
set(LOADER_PAGE_nrf51 1024)
set(LOADER_BLOCK_nrf51 2048)
if(NOT EXISTS ${CMAKE_CURRENT_LIST_DIR}/ports/${PORT}.c)
  message(FATAL_ERROR "the loader is not ported to '${PORT}': write ports/${PORT}.c")
endif()

set(LOADER_KEY "" CACHE FILEPATH "a file of 64 hexadecimal digits: the loader takes firmware with a tag of this key alone")
set(LOADER_PAGES 1)
if(LOADER_KEY)
  set(LOADER_PAGES 3)
  file(READ ${LOADER_KEY} DIGITS LIMIT 65)
  string(STRIP "${DIGITS}" DIGITS)
  string(LENGTH "${DIGITS}" COUNT)
  if(NOT COUNT EQUAL 64 OR NOT DIGITS MATCHES "^[0-9a-f]+$")
    message(FATAL_ERROR "LOADER_KEY: no 64 hexadecimal digits: edgesdk keys make --for loader FILE makes such a file")
  endif()
  string(REGEX REPLACE "(..)" "0x\\1, " DIGITS "${DIGITS}")
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/key/loader_key.h "#define LOADER_KEY {${DIGITS}}\n")
endif()
math(EXPR LOADER_CODE "${LOADER_BYTES} - ${LOADER_PAGES} * ${LOADER_PAGE_${PORT}}")
math(EXPR APP_FLASH_ORIGIN "${FLASH_ORIGIN} + ${LOADER_BYTES}" OUTPUT_FORMAT HEXADECIMAL)
math(EXPR APP_FLASH_LENGTH "${FLASH_LENGTH} - ${LOADER_BYTES}")
math(EXPR APP_RAM_ORIGIN "${RAM_ORIGIN} + ${LOADER_FLAG_BYTES}" OUTPUT_FORMAT HEXADECIMAL)
math(EXPR APP_RAM_LENGTH "${RAM_LENGTH} - ${LOADER_FLAG_BYTES}")
set(LOADER_RAM ${APP_RAM_ORIGIN})
set(LOADER_RAM_LENGTH ${APP_RAM_LENGTH})
configure_file(${CMAKE_CURRENT_LIST_DIR}/link.ld.in ${CMAKE_CURRENT_BINARY_DIR}/loader.ld @ONLY)

add_executable(loader.elf ${CMAKE_CURRENT_LIST_DIR}/start.c ${CMAKE_CURRENT_LIST_DIR}/loader.c
               ${CMAKE_CURRENT_LIST_DIR}/frame.c ${CMAKE_CURRENT_LIST_DIR}/ports/${PORT}.c)
if(LOADER_KEY)
  target_sources(loader.elf PRIVATE ${CMAKE_CURRENT_LIST_DIR}/blake2s.c)
  target_include_directories(loader.elf PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/key)
  target_compile_definitions(loader.elf PRIVATE LOADER_KEYED)
endif()
target_compile_definitions(
  loader.elf PRIVATE BOARD_NAME="${BOARD}" ${PORT_DEFINITIONS} FLASH_ORIGIN=${FLASH_ORIGIN}u FLASH_BYTES=${FLASH_LENGTH}u
                     RAM_ORIGIN=${RAM_ORIGIN}u RAM_BYTES=${RAM_LENGTH}u PAGE_BYTES=${LOADER_PAGE_${PORT}}u
                     BLOCK_BYTES=${LOADER_BLOCK_${PORT}}u)
target_compile_options(loader.elf PRIVATE -Os -std=c99 -Wall -Wextra -ffreestanding -ffunction-sections)
target_link_options(loader.elf PRIVATE -nostartfiles --specs=nano.specs --specs=nosys.specs -Wl,--gc-sections
                    -T${CMAKE_CURRENT_BINARY_DIR}/loader.ld)
add_custom_command(TARGET loader.elf POST_BUILD COMMAND ${CMAKE_OBJCOPY} -O binary loader.elf loader.bin)
