package android.content;

import android.content.res.AssetManager;
import java.io.File;

/** As much of Android's class as the sources use; its folders are what a test gives it. */
public class Context {
  private final File home;
  private final AssetManager assets;

  public Context(File home, File assets) {
    this.home = home;
    this.assets = new AssetManager(assets);
  }

  public Context() {
    this(null, null);
  }

  public File getFilesDir() {
    return new File(home, "files");
  }

  public File getExternalFilesDir(String type) {
    return new File(home, "external");
  }

  public AssetManager getAssets() {
    return assets;
  }

  public Context getApplicationContext() {
    return this;
  }

  public <T> T getSystemService(Class<T> type) {
    return null;
  }

  public String getPackageName() {
    return "stub";
  }

  public Intent registerReceiver(BroadcastReceiver receiver, IntentFilter filter) {
    return null;
  }
}
