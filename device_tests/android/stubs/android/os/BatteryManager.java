package android.os;

public class BatteryManager {
  public static final int BATTERY_PROPERTY_CHARGE_COUNTER = 1;
  public static final int BATTERY_PROPERTY_CURRENT_NOW = 2;
  public static final int BATTERY_PROPERTY_ENERGY_COUNTER = 5;
  public static final String EXTRA_PLUGGED = "plugged";
  public static final String EXTRA_TEMPERATURE = "temperature";
  public static final String EXTRA_VOLTAGE = "voltage";
  public static final String EXTRA_LEVEL = "level";

  public int getIntProperty(int id) {
    return 0;
  }

  public long getLongProperty(int id) {
    return 0;
  }
}
