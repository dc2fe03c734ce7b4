// Copyright: (c) 2026, confidential.gpu contributors
// SPDX-License-Identifier: Apache-2.0

// Kubernetes' own controllers, with the least provider that reads the emulated bare-metal manager: what ours are
// compared with. Its settings come from the environment: BMM_URL, BMM_BASE, BMM_TOKEN, BMM_SITE, BMM_TENANT, BMM_ORG.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/app/config"
	"k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
)

type instance struct {
	ID           string
	Name         string
	Status       string
	InstanceType struct{ Name string }
	Interfaces   []struct{ IPAddresses []string }
}

type provider struct{}

var errGone = errors.New("gone")

func get(path string, found any) error {
	request, err := http.NewRequest("GET", os.Getenv("BMM_URL")+os.Getenv("BMM_BASE")+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("BMM_TOKEN"))
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode == 404 && strings.Contains(string(body), "Could not find Instance") {
		return errGone
	}
	if answer.StatusCode != 200 {
		return fmt.Errorf("%s: %s", path, answer.Status)
	}
	return json.Unmarshal(body, found)
}

func of(node *v1.Node) (*instance, error) {
	if id := node.Spec.ProviderID; id != "" {
		if !strings.HasPrefix(id, "nvidia-bmm://") && !strings.HasPrefix(id, "nico://") {
			return nil, fmt.Errorf("%s is not ours", id)
		}
		found := &instance{}
		return found, get("/instance/"+id[strings.LastIndex(id, "/")+1:]+"?includeRelation=InstanceType", found)
	}
	var named []instance
	err := get("/instance?includeRelation=InstanceType&name="+url.QueryEscape(node.Name), &named)
	if err != nil || len(named) != 1 {
		return nil, fmt.Errorf("%d instances named %s: %v", len(named), node.Name, err)
	}
	return &named[0], nil
}

func (provider) InstanceExists(_ context.Context, node *v1.Node) (bool, error) {
	found, err := of(node)
	if errors.Is(err, errGone) {
		return false, nil
	}
	return err == nil && found.Status != "Terminated", err
}

func (provider) InstanceShutdown(_ context.Context, node *v1.Node) (bool, error) {
	found, err := of(node)
	return err == nil && (found.Status == "Terminating" || found.Status == "Error"), err
}

func (provider) InstanceMetadata(_ context.Context, node *v1.Node) (*cloudprovider.InstanceMetadata, error) {
	found, err := of(node)
	if err != nil {
		return nil, err
	}
	var site struct {
		Name     string
		Location struct{ Country, State string }
	}
	if err := get("/site/"+os.Getenv("BMM_SITE"), &site); err != nil {
		return nil, err
	}
	made := &cloudprovider.InstanceMetadata{
		ProviderID: fmt.Sprintf("nvidia-bmm://%s/%s/%s/%s", os.Getenv("BMM_ORG"), os.Getenv("BMM_TENANT"), os.Getenv("BMM_SITE"), found.ID),
		Zone:       site.Name, Region: strings.ToLower(site.Location.Country + "-" + site.Location.State),
		InstanceType: found.InstanceType.Name,
	}
	for _, one := range found.Interfaces {
		for _, address := range one.IPAddresses {
			made.NodeAddresses = append(made.NodeAddresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: address})
		}
	}
	return made, nil
}

func (provider) Initialize(cloudprovider.ControllerClientBuilder, <-chan struct{}) {}
func (provider) LoadBalancer() (cloudprovider.LoadBalancer, bool)                  { return nil, false }
func (provider) Instances() (cloudprovider.Instances, bool)                        { return nil, false }
func (provider) InstancesV2() (cloudprovider.InstancesV2, bool)                    { return provider{}, true }
func (provider) Zones() (cloudprovider.Zones, bool)                                { return nil, false }
func (provider) Clusters() (cloudprovider.Clusters, bool)                          { return nil, false }
func (provider) Routes() (cloudprovider.Routes, bool)                              { return nil, false }
func (provider) ProviderName() string                                              { return "oracle" }
func (provider) HasClusterID() bool                                                { return true }

func main() {
	cloudprovider.RegisterCloudProvider("oracle", func(io.Reader) (cloudprovider.Interface, error) { return provider{}, nil })
	chosen, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		panic(err)
	}
	initialise := func(*config.CompletedConfig) cloudprovider.Interface { return provider{} }
	command := app.NewCloudControllerManagerCommand(
		chosen, initialise, app.DefaultInitFuncConstructors, names.CCMControllerAliases(), cliflag.NamedFlagSets{}, wait.NeverStop)
	os.Exit(cli.Run(command))
}
