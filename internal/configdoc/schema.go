package configdoc

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/pandoproxy/pando/internal/config"
)

// chartOwns are the keys that the chart sets by values of its own, because other
// objects depend on them: ports, the security context, the grace period. They are
// not in the chart's value config.
var chartOwns = []string{
	"listen.proxy",
	"listen.admin",
	"tailnet.mode",
	"tailnet.hostname",
	"tailnet.controlURL",
	"tailnet.tags",
	"tailnet.authKey",
	"tailnet.authKeyFile",
	"tailnet.clientSecret",
	"tailnet.clientSecretFile",
	"tailnet.kubeSecret",
	"tailnet.stateDir",
	"drain.settle",
	"drain.timeout",
}

// schema returns the JSON schema of the chart's values, with that of the value
// config made from the keys.
func schema(old []byte, list []description) ([]byte, error) {
	var values map[string]any
	if err := json.Unmarshal(old, &values); err != nil {
		return nil, err
	}
	properties, ok := values["properties"].(map[string]any)
	if !ok {
		return nil, errors.New("no properties")
	}
	texts := map[string]string{}
	for _, d := range list {
		texts[d.path] = d.plain()
	}
	root := object("The configuration file, without the keys that other values set. docs/configuration.md explains the keys.")
	for _, k := range config.Keys() {
		if slices.Contains(chartOwns, k.Path) {
			continue
		}
		parent := root
		names := strings.Split(k.Path, ".")
		for i, name := range names[:len(names)-1] {
			props := parent["properties"].(map[string]any)
			if list, ok := strings.CutSuffix(name, "[]"); ok {
				parent = props[list].(map[string]any)["items"].(map[string]any)
				continue
			}
			if props[name] == nil {
				props[name] = object(texts[strings.Join(names[:i+1], ".")])
			}
			parent = props[name].(map[string]any)
		}
		key := keySchema(k)
		key["description"] = texts[k.Path]
		parent["properties"].(map[string]any)[names[len(names)-1]] = key
	}
	properties["config"] = root
	data, err := json.MarshalIndent(values, "", "  ")
	return append(data, '\n'), err
}

func object(text string) map[string]any {
	o := map[string]any{
		"type":                 "object",
		"properties":           map[string]any{},
		"additionalProperties": false,
	}
	if text != "" {
		o["description"] = text
	}
	return o
}

func keySchema(k config.Key) map[string]any {
	isSections := slices.ContainsFunc(config.Keys(), func(e config.Key) bool {
		return strings.HasPrefix(e.Path, k.Path+"[].")
	})
	text := map[string]any{"type": "string"}
	switch {
	case isSections:
		return map[string]any{"type": "array", "items": object("")}
	case k.Type == "list":
		return map[string]any{"type": "array", "items": text}
	case k.Type == "map":
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "array", "items": text}}
	case k.Type == "number":
		return map[string]any{"type": "integer"}
	case k.Type == "bool":
		return map[string]any{"type": "boolean"}
	}
	return text
}
