# For a build with Docker. `make image` builds the same image without Docker.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/pandoproxy/pando/internal/cli.Version=$VERSION" -o /pando ./cmd/pando

# The user is root, as in the stock image. Kubernetes has no ambient capabilities, so
# NET_ADMIN has no effect for another user. The chart sets the user.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /pando /pando
COPY --from=build /pando /usr/local/bin/containerboot
COPY --from=build /pando /usr/local/bin/tailscale
ENTRYPOINT ["/pando"]
