"""What the Android deliverable is tested with: compilers and packers from npm and Debian, stubs, and a JVM."""
