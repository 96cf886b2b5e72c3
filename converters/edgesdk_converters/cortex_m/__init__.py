"""Microcontrollers with a Cortex-M core: the C99 runtime and TensorFlow Lite Micro."""
