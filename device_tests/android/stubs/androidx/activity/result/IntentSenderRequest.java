package androidx.activity.result;

import android.content.Intent;
import android.content.IntentSender;

public final class IntentSenderRequest {
  public IntentSender getIntentSender() {
    return null;
  }

  public Intent getFillInIntent() {
    return null;
  }

  public int getFlagsMask() {
    return 0;
  }

  public int getFlagsValues() {
    return 0;
  }
}
