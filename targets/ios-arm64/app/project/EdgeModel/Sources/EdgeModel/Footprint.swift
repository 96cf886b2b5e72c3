#if canImport(Darwin)
  import Darwin
  import os

  /// Memory of this process, in bytes, as the system counts it against the app.
  public enum Footprint {
    /// What the app holds now (`phys_footprint`, the figure that Xcode shows and that the limit is about); nil when the
    /// kernel does not say.
    public static var now: Int? {
      var info = task_vm_info_data_t()
      var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<integer_t>.size)
      let status = withUnsafeMutablePointer(to: &info) {
        $0.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
          task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
        }
      }
      return status == KERN_SUCCESS ? Int(info.phys_footprint) : nil
    }

    #if os(iOS)
      /// What it may take before the system ends it.
      public static var available: Int { os_proc_available_memory() }
    #endif
  }
#endif
