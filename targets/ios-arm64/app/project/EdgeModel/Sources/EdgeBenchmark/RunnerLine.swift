import Foundation

/// Events of the runner protocol: JSON, one a line, each with the CRC-32 of its text (`TEXT*XXXXXXXX`).
public enum RunnerLine {
  /// A value of an event.
  public enum Value: Sendable {
    case int(Int)
    case text(String)
    case real(Double)
    case none

    var json: String {
      switch self {
      case .int(let value): return String(value)
      case .real(let value): return value.isFinite ? String(value) : "null"
      case .none: return "null"
      case .text(let value): return RunnerLine.quoted(value)
      }
    }
  }

  /// Names and values of an event, in order.
  public typealias Fields = [(String, Value)]

  /// One event as edgesdk reads it, without the line end.
  public static func event(_ name: String, _ fields: Fields = []) -> String {
    let parts = [("event", Value.text(name))] + fields
    return sealed("{" + parts.map { "\(quoted($0.0)):\($0.1.json)" }.joined(separator: ",") + "}")
  }

  static func sealed(_ text: String) -> String {
    text + "*" + hexadecimal(crc32(Array(text.utf8)))
  }

  /// IEEE 802.3.
  public static func crc32(_ bytes: [UInt8]) -> UInt32 {
    var crc: UInt32 = 0xFFFF_FFFF
    for byte in bytes {
      crc ^= UInt32(byte)
      for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
    }
    return ~crc
  }

  public static func hexadecimal(_ value: UInt32) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 8 - digits.count) + digits
  }

  private static func quoted(_ text: String) -> String {
    var out = "\""
    for unit in text.utf16 {
      switch unit {
      case 0x22: out += "\\\""
      case 0x5C: out += "\\\\"
      case 0x20..<0x7F: out.unicodeScalars.append(Unicode.Scalar(unit)!)
      default: out += "\\u" + String(hexadecimal(UInt32(unit)).suffix(4))
      }
    }
    return out + "\""
  }
}
