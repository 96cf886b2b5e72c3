package androidx.activity.result.contract;

import androidx.activity.result.ActivityResult;
import androidx.activity.result.IntentSenderRequest;

public final class ActivityResultContracts {
  public static final class StartIntentSenderForResult
      extends ActivityResultContract<IntentSenderRequest, ActivityResult> {}
}
