package com.google.android.play.core.aipacks;

import java.util.Map;

public abstract class AiPackStates {
  public abstract Map<String, AiPackState> packStates();
}
