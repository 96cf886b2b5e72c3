package com.google.android.play.core.aipacks;

public interface AiPackStateUpdateListener {
  void onStateUpdate(AiPackState state);
}
