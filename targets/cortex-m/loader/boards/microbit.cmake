# BBC micro:bit (nRF51822), real or as QEMU emulates it: too small for a language model, but its flash is real flash
set(CORE_FLAGS -mcpu=cortex-m0)
set(PORT nrf51)
set(PORT_DEFINITIONS PORT_TX_PIN=24 PORT_RX_PIN=25)
set(FLASH_ORIGIN 0x00000000)
set(FLASH_LENGTH 262144)
set(RAM_ORIGIN 0x20000000)
set(RAM_LENGTH 16384)
