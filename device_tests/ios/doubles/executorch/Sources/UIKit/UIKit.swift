// What of UIKit, and of Foundation on iOS, DeviceState names.
import Foundation

@MainActor
public final class UIApplication {
  public nonisolated static let didReceiveMemoryWarningNotification = Notification.Name("memory")
}

extension ProcessInfo {
  public enum ThermalState: Int, Sendable {
    case nominal, fair, serious, critical
  }

  public var thermalState: ThermalState { .nominal }
  public static let thermalStateDidChangeNotification = Notification.Name("thermal")
}
