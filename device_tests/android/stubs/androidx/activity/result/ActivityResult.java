package androidx.activity.result;

public final class ActivityResult {}
