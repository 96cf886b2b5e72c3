package android.app;

import android.content.Context;
import android.content.Intent;
import android.content.IntentSender;
import android.os.Bundle;
import android.view.View;
import android.view.Window;

public class Activity extends Context {
  protected void onCreate(Bundle state) {}

  protected void onDestroy() {}

  public void setContentView(View view) {}

  public Window getWindow() {
    return null;
  }

  public Intent getIntent() {
    return null;
  }

  public void finish() {}

  public void startIntentSenderForResult(
      IntentSender intent, int request, Intent fill, int mask, int values, int extra)
      throws IntentSender.SendIntentException {}

  public final void runOnUiThread(Runnable work) {
    work.run();
  }
}
