package android.view;

import android.content.Context;

public class View {
  public static final int GONE = 8;
  public static final int VISIBLE = 0;
  public static final int FOCUS_DOWN = 130;

  public View(Context context) {}

  public void setOnClickListener(OnClickListener listener) {}

  public void setPadding(int left, int top, int right, int bottom) {}

  public boolean getFitsSystemWindows() {
    return false;
  }

  public void setFitsSystemWindows(boolean fits) {}

  public boolean isEnabled() {
    return true;
  }

  public void setEnabled(boolean enabled) {}

  public void setVisibility(int visibility) {}

  public boolean post(Runnable work) {
    return true;
  }

  public interface OnClickListener {
    void onClick(View view);
  }
}
