"""Count the answers of a web server by status, from its log."""

LOG = """\
GET /index.html 200 5120
GET /style.css 200 830
GET /logo.png 304 0
POST /login 302 0
GET /missing.html 404 210

GET /index.html 200 5120
"""


def parse(line):
    method, path, status, size = line.split(" ")
    return method, path, int(status), int(size)


def summary(log):
    counts = {}
    sent = 0
    for line in log.splitlines():
        method, path, status, size = parse(line)
        counts[status] = counts.get(status, 0) + 1
        sent += size
    return counts, sent


counts, sent = summary(LOG)
for status in sorted(counts):
    print(status, counts[status])
print("bytes sent:", sent)
