import XCTest

@testable import EdgeBenchmark

final class RunnerLineTests: XCTestCase {
  func testTheChecksumIsThatOfEthernet() {
    XCTAssertEqual(RunnerLine.crc32(Array("123456789".utf8)), 0xCBF4_3926)
  }

  func testAnEventIsAsciiWithItsChecksum() {
    let line = RunnerLine.event("x", [("a", .int(-1)), ("b", .text("\"ü\n")), ("c", .none), ("d", .real(.nan)), ("e", .real(0.5))])
    XCTAssertEqual(
      line.split(separator: "*").first,
      #"{"event":"x","a":-1,"b":"\"\u00fc\u000a","c":null,"d":null,"e":0.5}"#)
  }
}
