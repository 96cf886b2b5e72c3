package android.content;

public class BroadcastReceiver {}
