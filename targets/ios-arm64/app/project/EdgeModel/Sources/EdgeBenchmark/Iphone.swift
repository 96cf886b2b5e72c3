#if os(iOS)
  import EdgeModel
  import Foundation
  import UIKit

  extension Phone {
    /// This iPhone: heat, battery and memory as iOS says them to an app. The battery's level comes in coarse steps; power
    /// is for meters beside the phone, and for edgesdk's source of iOS's battery registry.
    @MainActor
    public static func here() -> Phone {
      let device = UIDevice.current
      device.isBatteryMonitoringEnabled = true
      return Phone(
        facts: [
          ("manufacturer", .text("Apple")), ("model", .text(machine)), ("os", .text("ios")),
          ("release", .text(device.systemVersion)),
        ],
        sensors: {
          let level = MainActor.assumeIsolated { device.batteryLevel }
          let state = MainActor.assumeIsolated { device.batteryState.rawValue }
          return [
            ("thermal_state", .int(ProcessInfo.processInfo.thermalState.rawValue)),
            ("battery_level", level < 0 ? .none : .real(Double(level))), ("battery_state", .int(state)),
            ("power_save", .int(ProcessInfo.processInfo.isLowPowerModeEnabled ? 1 : 0)),
          ]
        },
        memory: {
          [
            ("footprint", Footprint.now.map { .int($0) } ?? .none), ("available", .int(Footprint.available)),
          ]
        })
    }

    /// Such as `iPhone17,1`.
    private static var machine: String {
      var info = utsname()
      uname(&info)
      return withUnsafeBytes(of: &info.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
  }
#endif
