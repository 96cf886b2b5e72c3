package com.google.android.play.core.assetpacks;

import android.content.Context;

public class AssetPackManagerFactory {
  /** What a test gives. */
  public static AssetPackManager manager;

  public static synchronized AssetPackManager getInstance(Context context) {
    return manager;
  }
}
