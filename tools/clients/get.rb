# A client in Ruby: get.rb get URL... | get.rb put FILE URL
#
# Net::HTTP takes the proxy from http_proxy and https_proxy. CA is the file of the authority.
require "net/http"
require "uri"

action, *rest = ARGV
body = action == "put" ? File.binread(rest.shift) : nil
uris = rest.map { |url| URI(url) }
proxy = uris[0].find_proxy
http = Net::HTTP.new(uris[0].host, uris[0].port, proxy&.host, proxy&.port)
http.use_ssl = uris[0].scheme == "https"
http.ca_file = ENV.fetch("CA")
http.start do
  uris.each do |uri|
    request = body ? Net::HTTP::Put.new(uri) : Net::HTTP::Get.new(uri)
    request.body = body
    response = http.request(request)
    response.value # raises an error unless the status is 2xx
    $stdout.binmode.write(response.body)
  end
end
