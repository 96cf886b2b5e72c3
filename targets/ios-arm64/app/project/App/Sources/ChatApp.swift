import SwiftUI

@main
struct ChatApp: App {
  var body: some Scene {
    WindowGroup {
      if NSClassFromString("XCTestCase") == nil {  // a benchmark has the phone, and the memory, for itself
        ChatView()
      }
    }
  }
}
