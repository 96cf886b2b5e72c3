package com.google.android.play.core.assetpacks;

public interface AssetPackStateUpdateListener {
  void onStateUpdate(AssetPackState state);
}
