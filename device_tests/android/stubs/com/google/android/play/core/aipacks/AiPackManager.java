package com.google.android.play.core.aipacks;

import androidx.activity.result.ActivityResultLauncher;
import androidx.activity.result.IntentSenderRequest;
import com.google.android.gms.tasks.Task;
import java.util.List;

public interface AiPackManager {
  AiPackLocation getPackLocation(String name);

  Task<AiPackStates> fetch(List<String> names);

  void registerListener(AiPackStateUpdateListener listener);

  void unregisterListener(AiPackStateUpdateListener listener);

  Task<Void> removePack(String name);

  boolean showConfirmationDialog(ActivityResultLauncher<IntentSenderRequest> launcher);
}
