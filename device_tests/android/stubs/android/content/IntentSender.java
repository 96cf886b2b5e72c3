package android.content;

public class IntentSender {
  public static class SendIntentException extends Exception {}
}
