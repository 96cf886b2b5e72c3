package dev.edgesdk.benchmark

import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.Debug
import android.os.PowerManager

/** Thermal service, battery and memory of an Android phone. */
internal class PhoneSensors(private val context: Context) : Sensors {
    private val power = context.getSystemService(PowerManager::class.java)
    private val battery = context.getSystemService(BatteryManager::class.java)

    override fun read(): List<Pair<String, Any?>> {
        val state = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
        return listOf(
            "thermal_status" to if (Build.VERSION.SDK_INT >= 29) power.currentThermalStatus else null,
            "thermal_headroom" to headroom(),
            "battery_celsius" to extra(state, BatteryManager.EXTRA_TEMPERATURE)?.let { it / 10.0 },
            "battery_volts" to extra(state, BatteryManager.EXTRA_VOLTAGE)?.let { it / 1000.0 },
            "battery_microamperes" to property(BatteryManager.BATTERY_PROPERTY_CURRENT_NOW),
            "battery_microamperehours" to property(BatteryManager.BATTERY_PROPERTY_CHARGE_COUNTER),
            "battery_nanowatthours" to
                battery.getLongProperty(BatteryManager.BATTERY_PROPERTY_ENERGY_COUNTER).takeIf { it != Long.MIN_VALUE },
            "battery_level" to extra(state, BatteryManager.EXTRA_LEVEL),
            "plugged" to extra(state, BatteryManager.EXTRA_PLUGGED),
            "power_save" to power.isPowerSaveMode,
        )
    }

    /** How near throttling is: 1 is at its threshold; phones answer about once a second, and say NaN in between. */
    private fun headroom(): Double? {
        if (Build.VERSION.SDK_INT < 30) return null
        return power.getThermalHeadroom(0).toDouble().takeIf { !it.isNaN() }
    }

    override fun memory(): List<Pair<String, Any?>> {
        val found = Debug.MemoryInfo()
        Debug.getMemoryInfo(found)
        return listOf(
            "pss_kb" to found.totalPss,
            "java_heap_kb" to found.getMemoryStat("summary.java-heap")?.toIntOrNull(),
            "native_heap_kb" to found.getMemoryStat("summary.native-heap")?.toIntOrNull(),
            "code_kb" to found.getMemoryStat("summary.code")?.toIntOrNull(),
        )
    }

    private fun extra(state: Intent?, name: String): Int? =
        state?.getIntExtra(name, Int.MIN_VALUE)?.takeIf { it != Int.MIN_VALUE }

    private fun property(id: Int): Int? = battery.getIntProperty(id).takeIf { it != Int.MIN_VALUE }
}
