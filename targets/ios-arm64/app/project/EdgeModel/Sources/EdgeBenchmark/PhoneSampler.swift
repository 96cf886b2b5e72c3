#if os(iOS)
  import EdgeModel
  import Foundation
  import UIKit

  /// Memory, heat and battery of an iPhone as `sample` events, at most one each interval.
  ///
  /// The battery's level comes in steps of 1 % or more; power comes from outside (`edgesdk`'s battery registry source).
  @MainActor
  public final class PhoneSampler {
    private let interval: Int
    private let clock: () -> Int
    private let say: (String) -> Void
    private var last: Int?

    public init(interval: Double, clock: @escaping () -> Int = Benchmark.now, say: @escaping (String) -> Void) {
      self.interval = Int(interval * 1e9)
      self.clock = clock
      self.say = say
      UIDevice.current.isBatteryMonitoringEnabled = true
    }

    public func look() {
      let now = clock()
      if let last, now - last < interval { return }
      last = now
      let device = UIDevice.current
      let level = device.batteryLevel
      say(
        RunnerLine.event(
          "sample",
          [
            "at": .int(now),
            "footprint": Footprint.now.map { .int($0) } ?? .none,
            "available": .int(Footprint.available),
            "thermal_state": .int(ProcessInfo.processInfo.thermalState.rawValue),
            "battery_level": level < 0 ? .none : .real(Double(level)),
            "battery_state": .int(device.batteryState.rawValue),
            "low_power_mode": .int(ProcessInfo.processInfo.isLowPowerModeEnabled ? 1 : 0),
          ]))
    }
  }
#endif
