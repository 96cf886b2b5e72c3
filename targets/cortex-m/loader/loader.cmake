# The target loader.elf for the board that was included. Sets APP_FLASH_ORIGIN, APP_FLASH_LENGTH, APP_RAM_ORIGIN and
# APP_RAM_LENGTH: what is left for the application.
set(LOADER_BYTES 16384) # as in loader.h
set(LOADER_FLAG_BYTES 8)
set(LOADER_PAGE_mps2 4096) # of no meaning there: code memory is RAM
set(LOADER_BLOCK_mps2 4096)
set(LOADER_PAGE_nrf51 1024)
set(LOADER_BLOCK_nrf51 2048)
if(NOT EXISTS ${CMAKE_CURRENT_LIST_DIR}/ports/${PORT}.c)
  message(FATAL_ERROR "the loader is not ported to '${PORT}': write ports/${PORT}.c")
endif()

math(EXPR LOADER_CODE "${LOADER_BYTES} - ${LOADER_PAGE_${PORT}}")
math(EXPR APP_FLASH_ORIGIN "${FLASH_ORIGIN} + ${LOADER_BYTES}" OUTPUT_FORMAT HEXADECIMAL)
math(EXPR APP_FLASH_LENGTH "${FLASH_LENGTH} - ${LOADER_BYTES}")
math(EXPR APP_RAM_ORIGIN "${RAM_ORIGIN} + ${LOADER_FLAG_BYTES}" OUTPUT_FORMAT HEXADECIMAL)
math(EXPR APP_RAM_LENGTH "${RAM_LENGTH} - ${LOADER_FLAG_BYTES}")
set(LOADER_RAM ${APP_RAM_ORIGIN})
set(LOADER_RAM_LENGTH ${APP_RAM_LENGTH})
configure_file(${CMAKE_CURRENT_LIST_DIR}/link.ld.in ${CMAKE_CURRENT_BINARY_DIR}/loader.ld @ONLY)

add_executable(loader.elf ${CMAKE_CURRENT_LIST_DIR}/start.c ${CMAKE_CURRENT_LIST_DIR}/loader.c
               ${CMAKE_CURRENT_LIST_DIR}/frame.c ${CMAKE_CURRENT_LIST_DIR}/ports/${PORT}.c)
target_compile_definitions(
  loader.elf PRIVATE BOARD_NAME="${BOARD}" ${PORT_DEFINITIONS} FLASH_ORIGIN=${FLASH_ORIGIN}u FLASH_BYTES=${FLASH_LENGTH}u
                     RAM_ORIGIN=${RAM_ORIGIN}u RAM_BYTES=${RAM_LENGTH}u PAGE_BYTES=${LOADER_PAGE_${PORT}}u
                     BLOCK_BYTES=${LOADER_BLOCK_${PORT}}u)
target_compile_options(loader.elf PRIVATE -Os -std=c99 -Wall -Wextra -ffreestanding -ffunction-sections)
target_link_options(loader.elf PRIVATE -nostartfiles --specs=nano.specs --specs=nosys.specs -Wl,--gc-sections
                    -T${CMAKE_CURRENT_BINARY_DIR}/loader.ld)
add_custom_command(TARGET loader.elf POST_BUILD COMMAND ${CMAKE_OBJCOPY} -O binary loader.elf loader.bin)
