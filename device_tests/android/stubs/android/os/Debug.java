package android.os;

public class Debug {
  public static void getMemoryInfo(MemoryInfo info) {}

  public static class MemoryInfo {
    public int getTotalPss() {
      return 0;
    }

    public String getMemoryStat(String name) {
      return null;
    }
  }
}
