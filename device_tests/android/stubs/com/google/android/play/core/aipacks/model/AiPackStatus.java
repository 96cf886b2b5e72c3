package com.google.android.play.core.aipacks.model;

public @interface AiPackStatus {
  int COMPLETED = 4;
  int FAILED = 5;
  int CANCELED = 6;
  int WAITING_FOR_WIFI = 7;
  int REQUIRES_USER_CONFIRMATION = 9;
}
