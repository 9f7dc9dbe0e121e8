// An exported classifier in C++, with ONNX Runtime's C API alone:
//   g++ -std=c++17 predict.cpp -I$ONNXRUNTIME/include -L$ONNXRUNTIME/lib -lonnxruntime -o predict
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <vector>

struct Picture {
  int width, height, channels;
  std::vector<uint8_t> pixels;  // height × width × channels
};

struct Framing {
  int side, channels;
  double eye_distance, eye_height;
};

// Turn, scale and shift a picture so that the eyes lie where the framing has them; left is the picture's left.
std::vector<uint8_t> cut_out(const Picture& picture, const double left_eye[2], const double right_eye[2],
                             const Framing& framing) {
  const double ax = right_eye[0] - left_eye[0], ay = right_eye[1] - left_eye[1];
  const int side = framing.side;
  const int times = std::max(1, (int)std::ceil(std::hypot(ax, ay) / framing.eye_distance / side));
  auto at = [&](int x, int y, int c) -> double {
    const uint8_t* p = &picture.pixels[((size_t)y * picture.width + x) * picture.channels];
    if (framing.channels == 3) return p[picture.channels == 1 ? 0 : c];
    return picture.channels == 1 ? p[0] : 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
  };
  std::vector<uint8_t> face;
  for (int row = 0; row < side; ++row)
    for (int column = 0; column < side; ++column)
      for (int c = 0; c < framing.channels; ++c) {
        double sum = 0;  // of several places in the pixel, so that all of it counts
        for (int i = 0; i < times; ++i)
          for (int j = 0; j < times; ++j) {
            const double u = ((column + (j + 0.5) / times) / side - 0.5) / framing.eye_distance;
            const double v = ((row + (i + 0.5) / times) / side - framing.eye_height) / framing.eye_distance;
            const double x = std::clamp((left_eye[0] + right_eye[0]) / 2 + u * ax - v * ay - 0.5, 0.0,
                                        picture.width - 1.0);
            const double y = std::clamp((left_eye[1] + right_eye[1]) / 2 + u * ay + v * ax - 0.5, 0.0,
                                        picture.height - 1.0);
            const int left = std::min((int)x, picture.width - 2), top = std::min((int)y, picture.height - 2);
            const double a = x - left, b = y - top;
            sum += (1 - b) * ((1 - a) * at(left, top, c) + a * at(left + 1, top, c)) +
                   b * ((1 - a) * at(left, top + 1, c) + a * at(left + 1, top + 1, c));
          }
        face.push_back((uint8_t)std::lround(sum / (times * times)));
      }
  return face;
}

std::string read(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) std::fprintf(stderr, "%s: cannot be read\n", file.c_str()), std::exit(2);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// A binary PGM or PPM file, so that this example needs no decoder.
Picture read_pnm(const std::string& file) {
  const std::string data = read(file);
  char kind;
  int width, height, head;
  if (std::sscanf(data.c_str(), "P%c %d %d 255%n", &kind, &width, &height, &head) != 3)
    std::fprintf(stderr, "%s: no binary PGM or PPM\n", file.c_str()), std::exit(2);
  return {width, height, kind == '5' ? 1 : 3, {data.begin() + head + 1, data.end()}};
}

const OrtApi* ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);

void check(OrtStatus* status) {
  if (status) std::fprintf(stderr, "%s\n", ort->GetErrorMessage(status)), std::exit(1);
}

int main(int count, char** arguments) {
  if (count != 7) return std::fprintf(stderr, "usage: predict FOLDER PICTURE LX LY RX RY\n"), 2;
  const std::string folder = arguments[1], card = read(folder + "/model.json");
  auto number = [&](const char* key) {  // your application has a JSON library
    std::smatch found;
    std::regex_search(card, found, std::regex("\"" + std::string(key) + "\":\\s*([0-9.]+)"));
    return std::stod(found[1]);
  };
  const Framing framing{(int)number("side"), (int)number("channels"), number("eye_distance"),
                        number("eye_height")};
  const double eyes[] = {atof(arguments[3]), atof(arguments[4]), atof(arguments[5]), atof(arguments[6])};
  std::vector<uint8_t> face = cut_out(read_pnm(arguments[2]), eyes, eyes + 2, framing);

  OrtEnv* environment;
  OrtSessionOptions* options;
  OrtSession* session;
  OrtMemoryInfo* memory;
  OrtValue *faces, *probabilities = nullptr;
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "predict", &environment));
  check(ort->CreateSessionOptions(&options));
  check(ort->CreateSession(environment, (folder + "/model.onnx").c_str(), options, &session));  // Windows: wchar_t
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  const int64_t shape[] = {1, framing.side, framing.side, 3};
  check(ort->CreateTensorWithDataAsOrtValue(memory, face.data(), face.size(), shape, framing.channels == 1 ? 3 : 4,
                                            ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &faces));
  const char *inputs[] = {"faces"}, *outputs[] = {"probabilities"};
  check(ort->Run(session, nullptr, inputs, &faces, 1, outputs, 1, &probabilities));
  float* values;
  check(ort->GetTensorMutableData(probabilities, (void**)&values));

  std::smatch list;
  std::regex_search(card, list, std::regex("\"classes\":\\s*\\[([^\\]]*)\\]"));
  const std::string names = list[1];
  const std::regex quoted("\"([^\"]*)\"");
  for (std::sregex_iterator name(names.begin(), names.end(), quoted), end; name != end; ++name)
    std::printf("%s %.4f\n", (*name)[1].str().c_str(), *values++);

  ort->ReleaseValue(probabilities);
  ort->ReleaseValue(faces);
  ort->ReleaseMemoryInfo(memory);
  ort->ReleaseSession(session);
  ort->ReleaseSessionOptions(options);
  ort->ReleaseEnv(environment);
}
