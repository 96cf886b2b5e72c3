package android.os;

public class PowerManager {
  public int getCurrentThermalStatus() {
    return 0;
  }

  public float getThermalHeadroom(int seconds) {
    return Float.NaN;
  }

  public boolean isPowerSaveMode() {
    return false;
  }

  public boolean isSustainedPerformanceModeSupported() {
    return false;
  }
}
