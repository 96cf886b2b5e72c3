package com.google.android.play.core.aipacks;

import android.content.Context;

public class AiPackManagerFactory {
  public static synchronized AiPackManager getInstance(Context context) {
    return null;
  }
}
