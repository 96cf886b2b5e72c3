#if canImport(UIKit)
  import Foundation
  import UIKit

  /// What the system says about heat and memory: shorten answers when it gets hot, let the model go when memory is short.
  public enum DeviceState {
    /// The thermal state now and each time it changes.
    @MainActor
    public static func thermalStates() -> AsyncStream<ProcessInfo.ThermalState> {
      AsyncStream { continuation in
        continuation.yield(ProcessInfo.processInfo.thermalState)
        observe(ProcessInfo.thermalStateDidChangeNotification, continuation) {
          ProcessInfo.processInfo.thermalState
        }
      }
    }

    /// Each memory warning: the next thing that happens to an app that holds on to its memory is its end.
    @MainActor
    public static func memoryWarnings() -> AsyncStream<Void> {
      AsyncStream { continuation in
        observe(UIApplication.didReceiveMemoryWarningNotification, continuation) {}
      }
    }

    private static func observe<T: Sendable>(
      _ name: Notification.Name, _ continuation: AsyncStream<T>.Continuation, _ value: @escaping @Sendable () -> T
    ) {
      let observer = Observer(
        NotificationCenter.default.addObserver(forName: name, object: nil, queue: nil) { _ in
          continuation.yield(value())
        })
      continuation.onTermination = { _ in observer.remove() }
    }
  }

  /// A registration, which may be taken back from any thread.
  private final class Observer: @unchecked Sendable {
    private let token: NSObjectProtocol

    init(_ token: NSObjectProtocol) {
      self.token = token
    }

    func remove() { NotificationCenter.default.removeObserver(token) }
  }
#endif
