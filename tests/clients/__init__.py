"""Real clients of other people against ``edgesdk serve``: what each of them can do, by trying it."""
