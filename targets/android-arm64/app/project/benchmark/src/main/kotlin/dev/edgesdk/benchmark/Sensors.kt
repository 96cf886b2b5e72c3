package dev.edgesdk.benchmark

/** What the phone says of itself now; null where it does not say. */
internal interface Sensors {
    /** Name and value of each: temperatures in °C, volts, amperes as the driver signs them, joules, and states. */
    fun read(): List<Pair<String, Any?>>

    /** Memory of this process in kB by name, as Android accounts it. */
    fun memory(): List<Pair<String, Any?>>
}
