package com.google.android.play.core.assetpacks;

import android.app.Activity;
import com.google.android.gms.tasks.Task;
import java.util.List;

public interface AssetPackManager {
  AssetPackLocation getPackLocation(String name);

  Task<AssetPackStates> fetch(List<String> names);

  void registerListener(AssetPackStateUpdateListener listener);

  void unregisterListener(AssetPackStateUpdateListener listener);

  Task<Void> removePack(String name);

  Task<Integer> showConfirmationDialog(Activity activity);
}
