package androidx.activity.result;

import androidx.activity.result.contract.ActivityResultContract;
import androidx.core.app.ActivityOptionsCompat;

public abstract class ActivityResultRegistry {
  public abstract <I, O> void onLaunch(
      int requestCode, ActivityResultContract<I, O> contract, I input, ActivityOptionsCompat options);

  public final <I, O> ActivityResultLauncher<I> register(
      String key, ActivityResultContract<I, O> contract, ActivityResultCallback<O> callback) {
    return null;
  }
}
